/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The numbers of signed.pxi, with their reasons in `_purewire`. */
#ifndef KDUMPWIRE_SIGNED_H
#define KDUMPWIRE_SIGNED_H

#include <stdint.h>

#define SESSION_NS INT64_C(30000000000)
#define NONCE_NS INT64_C(5000000000)
#define QUESTION_NS INT64_C(200000000)
#define QUESTIONS_AT_ONCE 20
#define FIRST_GAP_NS INT64_C(1000000000)
#define LAST_GAP_NS INT64_C(16000000000)

#endif
