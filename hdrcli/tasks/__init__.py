"""What the program can do, one file per task; each works on pictures in memory and knows no command line."""
