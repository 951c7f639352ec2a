"""What processes and threads of one machine share: locks, and threads that keep an order."""
