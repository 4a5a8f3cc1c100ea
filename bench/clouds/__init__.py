# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the listeners of docs/clouds.md cost, beside plain ones: `python -m bench.clouds`."""
