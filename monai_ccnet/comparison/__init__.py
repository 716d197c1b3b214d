"""Methods for smaller networks, trained and scored alike on one data set, at equal budgets."""

from monai_ccnet.comparison.methods import METHODS, Rival
from monai_ccnet.comparison.runs import compare
from monai_ccnet.comparison.tables import compare_table, rival_latencies

__all__ = ["METHODS", "Rival", "compare", "compare_table", "rival_latencies"]
