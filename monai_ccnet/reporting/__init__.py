"""What a run tells: as JSON, in plain words, and as one page with its pictures."""

from monai_ccnet.reporting.page import PICTURES, html_report, save_html_report
from monai_ccnet.reporting.report import report, report_words, save_report, save_trade_off

__all__ = [
    "PICTURES",
    "html_report",
    "report",
    "report_words",
    "save_html_report",
    "save_report",
    "save_trade_off",
]
