/* SPDX-License-Identifier: GPL-2.0 */
/* The two events of fathom_events: fields, and how a line of trace shows them. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM fathom_events

#if !defined(FATHOM_EVENTS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define FATHOM_EVENTS_TRACE_H

#include <linux/tracepoint.h>

TRACE_EVENT(fathom_pour,
	TP_PROTO(int cup, unsigned int millilitres, const char *what),
	TP_ARGS(cup, millilitres, what),
	TP_STRUCT__entry(
		__field(int, cup)
		__field(unsigned int, millilitres)
		__array(char, what, 16)
	),
	TP_fast_assign(
		__entry->cup = cup;
		__entry->millilitres = millilitres;
		strscpy(__entry->what, what, sizeof(__entry->what));
	),
	TP_printk("cup=%d millilitres=%u what=%s", __entry->cup, __entry->millilitres, __entry->what)
);

TRACE_EVENT(fathom_spill,
	TP_PROTO(int cup, unsigned int millilitres, int reason),
	TP_ARGS(cup, millilitres, reason),
	TP_STRUCT__entry(
		__field(int, cup)
		__field(unsigned int, millilitres)
		__field(int, reason)
	),
	TP_fast_assign(
		__entry->cup = cup;
		__entry->millilitres = millilitres;
		__entry->reason = reason;
	),
	TP_printk("cup=%d millilitres=%u reason=%s", __entry->cup, __entry->millilitres,
		  __print_symbolic(__entry->reason, { 0, "full" }, { 1, "knocked over" }))
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE fathom_events_trace
#include <trace/define_trace.h>
