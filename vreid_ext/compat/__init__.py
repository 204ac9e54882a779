"""The APIs of other packages, implemented with the ops of this package."""
