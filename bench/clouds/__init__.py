# SPDX-License-Identifier: GPL-2.0-or-later
"""What the listeners of docs/clouds.md cost, beside plain ones: `python -m bench.clouds`."""
