"""Our programs on several hosts, over networks that are bad, late or gone."""
