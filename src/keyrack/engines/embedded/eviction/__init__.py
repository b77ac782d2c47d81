"""Who goes when a store is full: the policy (S3-FIFO), and how often keys are used."""
