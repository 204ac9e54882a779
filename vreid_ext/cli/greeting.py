"""What `vreid` prints without arguments. It needs no further package."""

from vreid_ext import __version__

GREETING = f"""\
vreid_ext {__version__}: video person re-identification. Four ways to start:

  vreid demo                  A whole system on rendered people, in minutes on a CPU.
  vreid init FOLDER           The same on your own crops: writes a recipe for `vreid train`.
                              docs/quickstart_system.md

  vreid tracklets VIDEO OUT   Your own video: finds people, tracks them and cuts out tracklets.
                              docs/quickstart_video.md

  import vreid_ext            Parts in your own PyTorch code: layers, losses, exact CMC and mAP.
                              docs/quickstart_drop_in.md

  vreid info                  The kernels: which backends run here, and why others do not.
                              docs/quickstart_kernels.md

All commands: vreid --help. Each command: vreid COMMAND --help.
"""
