/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The schedule's numbers, which `_purewire` explains. In C, for no enum holds 60 seconds in ns. */
#ifndef KDUMPWIRE_SCHEDULE_H
#define KDUMPWIRE_SCHEDULE_H

#include <stdint.h>

#define EARLY_MESSAGES 10
#define MOST_ASKED 960
#define MOST_ASKED_AGAIN 256

#define EARLY_GAP_NS INT64_C(1000000000)
#define RETRY_NS INT64_C(100000000)
#define RETRY_PATIENCE_NS INT64_C(60000000000)
#define RETRY_LATER_NS INT64_C(1000000000)
#define SETTLING_NS INT64_C(40000000)
#define ASKING_NS INT64_C(3200000000)
#define LATE_NETWORK_NS INT64_C(60000000000)

#endif
