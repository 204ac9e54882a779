"""Runs in every Python process that finds this folder on its path: products are replaced as soon as the
package asks for its ops, once torch is there.
"""

import importlib.abc
import sys


class _BeforeOps(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "vreid_ext.ops":
            sys.meta_path.remove(self)
            import unfriendly_blas

            unfriendly_blas.installed = unfriendly_blas.install()


sys.meta_path.insert(0, _BeforeOps())
