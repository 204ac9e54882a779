"""Layers over the ops."""

from vreid_ext.nn.sta import STAPooling

__all__ = ["STAPooling"]
