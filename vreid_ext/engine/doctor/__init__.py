"""Whether features and a run are usable: one check per fault, each with its evidence and a remedy."""

from vreid_ext.engine.doctor.checks import CHECKS, Check, check_names, diagnose
from vreid_ext.engine.doctor.finding import Finding, Group
from vreid_ext.engine.doctor.subject import Subject, of_arrays, of_features, of_run

__all__ = [
    "CHECKS",
    "Check",
    "Finding",
    "Group",
    "Subject",
    "check_names",
    "diagnose",
    "of_arrays",
    "of_features",
    "of_run",
]
