"""Training, evaluation and feature extraction from recipes; requires `pip install 'vreid-ext[train]'`."""

from vreid_ext.distributed import join_processes
from vreid_ext.engine.audit import audit_features
from vreid_ext.engine.config import load_recipe, recipe_names
from vreid_ext.engine.evaluate import evaluate_checkpoint, evaluate_model
from vreid_ext.engine.extract import extract_features
from vreid_ext.engine.length_grid import evaluate_checkpoint_lengths, evaluate_lengths
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.recipe import Recipe
from vreid_ext.engine.train import train

__all__ = [
    "Recipe",
    "audit_features",
    "evaluate_checkpoint",
    "evaluate_checkpoint_lengths",
    "evaluate_lengths",
    "evaluate_model",
    "extract_features",
    "join_processes",
    "load_recipe",
    "open_checkpoint",
    "recipe_names",
    "train",
]
