#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "tp.h"
#include <stdlib.h>
#include <stdio.h>
int main(int c, char **v) {
  int n = atoi(v[1]); int list[8] = {1,-2,3,-4,5,-6,7,-8}; char name[32];
  for (int i = 0; i < n; i++) {
    snprintf(name, sizeof name, "item %d \"q\"", i);
    lttng_ust_tracepoint(shop, sale, i, name, list, 3 + i % 6, i / 3.0);
    if (i % 3 == 0) lttng_ust_tracepoint(shop, empty, i);
    lttng_ust_tracepoint(shop, small, i);
  }
  return 0; }
