"""The report: one page with everything that was found, and how to question it."""

from __future__ import annotations

from dagster_project.report.page.render import PAGE, write_page

__all__ = ["PAGE", "write_page"]
