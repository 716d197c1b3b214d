"""Plans of narrower networks for budgets and accuracy floors."""

from monai_ccnet.constraints.allocation import ALLOCATIONS, ladder
from monai_ccnet.constraints.budgets import (
    AccuracyFloor,
    Budget,
    ComputeBudget,
    DiskBudget,
    InfeasibleConstraintError,
    LatencyBudget,
    MemoryBudget,
)
from monai_ccnet.constraints.outlook import Outlook
from monai_ccnet.constraints.plan import CompressionPlan, planned_network_def
from monai_ccnet.constraints.scale import choose_scale, scales_needed, working_scale
from monai_ccnet.constraints.solve import compress, compress_once, family_of, least_needed, plan_at
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
    "Outlook",
    "choose_scale",
    "compress",
    "compress_once",
    "family_of",
    "ladder",
    "least_needed",
    "plan_at",
    "planned_network_def",
    "predicted_by",
    "scales_needed",
    "trade_off",
    "with_fewer_filters",
    "working_scale",
]
