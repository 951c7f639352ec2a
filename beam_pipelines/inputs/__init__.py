"""Which files a build reads, and what tables say about them."""
