"""Plans of narrower networks for budgets and accuracy floors."""

from monai_ccnet.constraints.allocation import ALLOCATIONS
from monai_ccnet.constraints.budgets import (
    AccuracyFloor,
    Budget,
    ComputeBudget,
    DiskBudget,
    InfeasibleConstraintError,
    LatencyBudget,
    MemoryBudget,
)
from monai_ccnet.constraints.plan import CompressionPlan, planned_network_def
from monai_ccnet.constraints.solve import compress, compress_once, least_needed
from monai_ccnet.constraints.trade_off import predicted_by, trade_off, with_fewer_filters

__all__ = [
    "ALLOCATIONS",
    "AccuracyFloor",
    "Budget",
    "CompressionPlan",
    "ComputeBudget",
    "DiskBudget",
    "InfeasibleConstraintError",
    "LatencyBudget",
    "MemoryBudget",
    "compress",
    "compress_once",
    "least_needed",
    "planned_network_def",
    "predicted_by",
    "trade_off",
    "with_fewer_filters",
]
