"""Reports of experiments: intervals over seeds, paired tests, tables, figures and provenance."""

from convlab.report.comparison import comparison
from convlab.report.drawing import RUNG_STYLE, Style, curves, dot_plot, new_figure
from convlab.report.explorer import Explorer, explore
from convlab.report.folder import draw_report, report_folder, save_report, save_rows
from convlab.report.json_lines import append_json_lines, read_json_lines
from convlab.report.matrices import dense_matrix, matrix_picture
from convlab.report.pairs import holm, p_value, paired_differences
from convlab.report.pictures import feature_map_grid, filter_grid, heatmap
from convlab.report.provenance import provenance
from convlab.report.seeds import POSITIVE, SHARE, Interval, best_rows, interval, interval_of, summarise
from convlab.report.sheets import sheet
from convlab.report.training import training_curves

__all__ = [
    "Explorer",
    "Interval",
    "POSITIVE",
    "RUNG_STYLE",
    "SHARE",
    "Style",
    "append_json_lines",
    "best_rows",
    "comparison",
    "curves",
    "dense_matrix",
    "dot_plot",
    "draw_report",
    "explore",
    "feature_map_grid",
    "filter_grid",
    "heatmap",
    "holm",
    "interval",
    "interval_of",
    "matrix_picture",
    "new_figure",
    "p_value",
    "paired_differences",
    "provenance",
    "read_json_lines",
    "report_folder",
    "save_report",
    "save_rows",
    "sheet",
    "summarise",
    "training_curves",
]
