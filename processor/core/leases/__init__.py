"""Who owns which shard, and how far it is: a machine that a shell carries out (`machine`)."""
