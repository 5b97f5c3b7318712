"""`python -m hdrcli` is `hdr`."""

from hdrcli.cli.main import main

if __name__ == "__main__":
    main()
