"""Where leases and state live: adapters of `ports.LeaseTable` and `ports.ObjectStore`."""
