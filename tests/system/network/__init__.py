# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our programs on several hosts, over networks that are bad, late or gone."""
