"""The command `vreid`, with one file per group of commands.

Modules other than torch and the standard library are imported only by the commands that need them.
"""

import importlib
import os
import re
import sys
from typing import Any

# Top-level module -> the extra of this package that installs it.
_EXTRAS = {
    **dict.fromkeys(
        (
            "jinja2", "markupsafe", "matplotlib", "omegaconf", "PIL", "rich", "safetensors",
            "scipy", "tensorboard", "torchmetrics", "torchvision", "typer", "yaml",
        ),
        "train",
    ),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
    **dict.fromkeys(("nncf", "openvino"), "deploy"),
    "huggingface_hub": "hub",
    "ai_edge_litert": "pose",
    "cv2": "video",
    "h5py": "hdf5",
    "sklearn": "cluster",
    **dict.fromkeys(("lancedb", "pyarrow"), "gallery"),
    **dict.fromkeys(("pgvector", "psycopg"), "gallery-postgresql"),
    **dict.fromkeys(("milvus_lite", "pymilvus"), "gallery-milvus"),
}  # fmt: skip
# In the order in which `vreid --help` lists them.
_GROUPS = (
    "init", "train", "adapt", "evaluate", "compare", "decide", "doctor", "index", "pictures", "data",
    "weights", "save", "tools",
    "demo",
)  # fmt: skip


def main() -> None:
    """Run the command line.

    Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted.

    An error is printed as one line on stderr; `vreid --debug COMMAND ...` shows the traceback instead.
    """
    arguments = [_expand_user(argument) for argument in sys.argv[1:]]
    if not arguments and "_VREID_COMPLETE" not in os.environ:  # which a shell sets to complete a command
        from vreid_ext.cli.greeting import GREETING

        print(GREETING, end="")
        return
    debug = arguments[:1] == ["--debug"]
    try:
        application()(args=arguments[debug:], prog_name="vreid")
    except SystemExit as end:
        if not end.code:
            _leave_process_group()
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if debug:
            raise
        module = (error.name or "").partition(".")[0]
        if module not in _EXTRAS:
            raise
        _fail(f"{module} is not installed: pip install 'vreid-ext[{_EXTRAS[module]}]'")
    except (ValueError, TypeError, OSError, ImportError, ArithmeticError, RuntimeError) as error:
        if debug:
            raise
        _fail(str(error) or type(error).__name__)


def application() -> Any:
    """The Typer application with all its commands."""
    from vreid_ext.cli.app import app

    for group in _GROUPS:
        importlib.import_module(f"vreid_ext.cli.{group}")
    return app


def _expand_user(argument: str) -> str:
    """Expand `~` in an argument. Shells do not expand it in `--out=~/runs`, and other programs never do."""
    option = re.match(r"--[\w-]+=", argument)
    name = option[0] if option else ""
    return name + os.path.expanduser(argument.removeprefix(name))


def _leave_process_group() -> None:
    """Destroy the process group; otherwise gloo occasionally aborts the process at exit."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _fail(message: str) -> None:
    print(f"vreid: error: {message}", file=sys.stderr)
    sys.exit(1)
