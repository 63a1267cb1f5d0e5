"""`rio l1bsr`: all commands of `l1bsr-geo` as a plugin of rasterio's command line.

`rio` loads this module whenever it runs, so it loads nothing itself. What stands after `l1bsr` goes
to our own command line as it is.
"""

import click

_AS_IS = {"ignore_unknown_options": True, "help_option_names": [], "max_content_width": 100}


@click.command(
    "l1bsr",
    context_settings=_AS_IS,
    add_help_option=False,
    short_help="Super-resolve images in sensor geometry, see rio l1bsr --help.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def l1bsr(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Super-resolve satellite images in sensor geometry and write georeferenced rasters."""
    from l1bsr_geo.cli.main import main

    verbosity = (context.obj or {}).get("verbosity", 0)  # of `rio -v`
    main([*["-v"] * max(0, verbosity), *arguments], name="rio l1bsr")
