"""Where records come from: adapters of `ports.Source`."""
