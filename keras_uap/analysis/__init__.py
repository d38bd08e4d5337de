"""The paper's measurements as functions, one file each."""

from keras_uap.analysis.interval import rate_interval as rate_interval
from keras_uap.analysis.report import FoolingReport as FoolingReport
from keras_uap.analysis.report import fooling_report as fooling_report
