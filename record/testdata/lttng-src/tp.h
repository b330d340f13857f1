#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER shop
#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "./tp.h"
#if !defined(_TP_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define _TP_H
#include <lttng/tracepoint.h>
LTTNG_UST_TRACEPOINT_ENUM(shop, state, LTTNG_UST_TP_ENUM_VALUES(
  lttng_ust_field_enum_value("OPEN", 0) lttng_ust_field_enum_range("BUSY", 1, 5) lttng_ust_field_enum_value("CLOSED", 9)))
LTTNG_UST_TRACEPOINT_EVENT(shop, sale, LTTNG_UST_TP_ARGS(int, n, const char *, name, const int *, list, unsigned, len, double, price),
 LTTNG_UST_TP_FIELDS(
  lttng_ust_field_integer(int, n, n)
  lttng_ust_field_integer_hex(unsigned long, h, n * 7ul)
  lttng_ust_field_integer_network(unsigned short, port, n)
  lttng_ust_field_string(name, name)
  lttng_ust_field_sequence(int, list, list, unsigned, len)
  lttng_ust_field_array(int, three, list, 3)
  lttng_ust_field_array_text(char, tag, "abcdefgh", 8)
  lttng_ust_field_sequence_text(char, part, name, unsigned, 3)
  lttng_ust_field_float(double, price, price)
  lttng_ust_field_float(float, fl, price)
  lttng_ust_field_enum(shop, state, int, st, n % 10)
  lttng_ust_field_integer(signed char, sc, -n)
  lttng_ust_field_integer(long long, ll, -5000000000ll * n)
 ))
LTTNG_UST_TRACEPOINT_EVENT(shop, empty, LTTNG_UST_TP_ARGS(int, n), LTTNG_UST_TP_FIELDS())
LTTNG_UST_TRACEPOINT_EVENT(shop, small, LTTNG_UST_TP_ARGS(int, n), LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(unsigned char, n, n)))
#endif
#include <lttng/tracepoint-event.h>
