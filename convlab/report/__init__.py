"""Reports of experiments: intervals over seeds, paired tests, tables, figures and provenance."""

from convlab.report.comparison import comparison as comparison
from convlab.report.drawing import RUNG_STYLE as RUNG_STYLE
from convlab.report.drawing import Style as Style
from convlab.report.drawing import curves as curves
from convlab.report.drawing import new_figure as new_figure
from convlab.report.drawing import points as points
from convlab.report.folder import save_report as save_report
from convlab.report.lines import add_lines as add_lines
from convlab.report.lines import read_lines as read_lines
from convlab.report.matrices import matrix_picture as matrix_picture
from convlab.report.pairs import holm as holm
from convlab.report.pairs import p_value as p_value
from convlab.report.pairs import paired as paired
from convlab.report.pictures import feature_sheet as feature_sheet
from convlab.report.pictures import filters as filters
from convlab.report.pictures import heat as heat
from convlab.report.provenance import provenance as provenance
from convlab.report.seeds import POSITIVE as POSITIVE
from convlab.report.seeds import SHARE as SHARE
from convlab.report.seeds import Interval as Interval
from convlab.report.seeds import best as best
from convlab.report.seeds import interval as interval
from convlab.report.seeds import interval_of as interval_of
from convlab.report.seeds import summarise as summarise
from convlab.report.training import training_curves as training_curves
