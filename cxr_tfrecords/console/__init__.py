"""What a command shows: its help, how far its work is, and no chatter of libraries."""
