/* style: the style sheet of the page. Private to runtime/report. */
#ifndef CR_REPORT_STYLE_H
#define CR_REPORT_STYLE_H

extern const char cr_report_style[], cr_report_chart_style[];

#endif
