"""What a study measured, as text that two runs of it have alike."""

from __future__ import annotations

from fastnn.studies.results import Results, Table


def texts(results: Results) -> dict[str, str]:
    """Every table as CSV, by its name, but for what was timed."""
    return {
        name: Table(
            {
                title: values
                for title, values in table.columns.items()
                if not title.startswith("seconds")
            }
        ).csv()
        for name, table in results.tables().items()
    }
