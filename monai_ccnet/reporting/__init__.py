"""The report of a run: as JSON, as plain text, and as an HTML page with figures."""

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
