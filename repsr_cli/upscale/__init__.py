"""Plan and run one upscaling job, or many."""
