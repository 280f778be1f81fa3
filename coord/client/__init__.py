"""The client of a coordination ensemble; its public names are `coord`'s."""
