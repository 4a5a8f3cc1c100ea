# SPDX-License-Identifier: LGPL-2.1-or-later
"""Properties: what must hold for any input, looked for by hypothesis and by a fuzzer."""
