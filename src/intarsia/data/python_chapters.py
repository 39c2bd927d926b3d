"""Which chapter of the Python library reference describes which module: a fact table, read off the reference.

The chapters are those of Python 3.11 (later versions moved a few command-line modules); a module that an interpreter
does not have is skipped by the reader. Only modules that are safe to look at stand here: nothing that prints, opens a
browser or needs a display when imported, and no test packages."""

from __future__ import annotations

_TABLE = {
    "Text Processing Services": "string re difflib textwrap unicodedata stringprep readline rlcompleter",
    "Binary Data Services": "struct codecs encodings",
    "Data Types": "datetime zoneinfo calendar collections heapq bisect array weakref types copy pprint reprlib enum "
    "graphlib",
    "Numeric and Mathematical Modules": "numbers math cmath decimal fractions random statistics",
    "Functional Programming Modules": "itertools functools operator",
    "File and Directory Access": "pathlib posixpath ntpath genericpath fileinput stat filecmp tempfile glob fnmatch "
    "linecache shutil",
    "Data Persistence": "pickle copyreg shelve marshal dbm sqlite3",
    "Data Compression and Archiving": "zlib gzip bz2 lzma zipfile tarfile",
    "File Formats": "csv configparser tomllib netrc plistlib",
    "Cryptographic Services": "hashlib hmac secrets",
    "Generic Operating System Services": "os io time argparse getopt logging getpass curses platform errno ctypes",
    "Concurrent Execution": "threading multiprocessing concurrent subprocess sched queue contextvars",
    "Networking and Interprocess Communication": "asyncio socket ssl select selectors signal mmap",
    "Internet Data Handling": "email json mailbox mimetypes base64 binascii quopri",
    "Structured Markup Processing Tools": "html xml",
    "Internet Protocols and Support": "webbrowser wsgiref urllib http ftplib poplib imaplib smtplib uuid socketserver "
    "xmlrpc ipaddress",
    "Multimedia Services": "wave colorsys",
    "Internationalization": "gettext locale",
    "Program Frameworks": "turtle cmd shlex",
    "Graphical User Interfaces with Tk": "tkinter",
    "Development Tools": "typing pydoc doctest unittest lib2to3",
    "Debugging and Profiling": "bdb faulthandler pdb timeit trace tracemalloc cProfile profile pstats",
    "Software Packaging and Distribution": "distutils ensurepip venv zipapp",
    "Python Runtime Services": "sys sysconfig builtins warnings dataclasses contextlib abc atexit traceback gc inspect "
    "site",
    "Custom Python Interpreters": "code codeop",
    "Importing Modules": "zipimport pkgutil modulefinder runpy importlib",
    "Python Language Services": "ast symtable token keyword tokenize tabnanny pyclbr py_compile compileall dis "
    "pickletools",
}

LEFT_OUT: dict[str, str] = {
    "Generic Operating System Services": "its modules share no subject (logging, curses, io, argparse, time)",
    "Python Runtime Services": "its modules share no subject (builtins, inspect, dataclasses, warnings)",
    "Development Tools": "its modules share no subject (typing, unittest, pydoc)",
    "Superseded Modules": "its modules share only their age",
    "Windows/Unix Specific Services": "its modules share only their platform",
}
"""Chapters that a reader could not tell from a text alone, with the reason; others fall out when material is short."""

UMBRELLAS = frozenset({"xml", "importlib"})
"""Packages that only hold others: the reference describes each sub-package as a module of its own."""

CHAPTER_OF: dict[str, str] = {module: chapter for chapter, modules in _TABLE.items() for module in modules.split()}
"""Top-level module or package -> chapter."""

# Public modules whose docstrings live, wholly or partly, in another source file ...
SOURCES: dict[str, tuple[str, ...]] = {
    "datetime": ("_pydatetime",),
    "decimal": ("_pydecimal",),
    "collections": ("_collections_abc",),
    "threading": ("_threading_local",),
    "lzma": ("_compression",),
    "time": ("_strptime",),
    "pathlib": ("pathlib._local", "pathlib._abc"),
    "re": ("re._compiler", "re._parser"),
    "abc": ("_py_abc",),
}
# ... and those (partly) written in C: importing these has no effect but the import.
COMPILED: dict[str, tuple[str, ...]] = {
    "array": ("array",),
    "atexit": ("atexit",),
    "binascii": ("binascii",),
    "builtins": ("builtins",),
    "bz2": ("_bz2",),
    "cmath": ("cmath",),
    "codecs": ("_codecs",),
    "collections": ("_collections",),
    "contextvars": ("_contextvars",),
    "csv": ("_csv",),
    "curses": ("_curses", "_curses_panel"),
    "datetime": ("_datetime",),
    "decimal": ("_decimal",),
    "dbm": ("_gdbm", "_dbm"),
    "errno": ("errno",),
    "faulthandler": ("faulthandler",),
    "functools": ("_functools",),
    "gc": ("gc",),
    "hashlib": ("_hashlib", "_md5", "_sha1", "_sha3", "_blake2"),
    "heapq": ("_heapq",),
    "io": ("_io",),
    "itertools": ("itertools",),
    "json": ("_json",),
    "locale": ("_locale",),
    "lzma": ("_lzma",),
    "marshal": ("marshal",),
    "math": ("math",),
    "mmap": ("mmap",),
    "operator": ("_operator",),
    "os": ("posix", "nt"),
    "pickle": ("_pickle",),
    "queue": ("_queue",),
    "random": ("_random",),
    "re": ("_sre",),
    "readline": ("readline",),
    "select": ("select",),
    "signal": ("_signal",),
    "socket": ("_socket",),
    "sqlite3": ("_sqlite3",),
    "ssl": ("_ssl",),
    "stat": ("_stat",),
    "struct": ("_struct",),
    "sys": ("sys",),
    "threading": ("_thread",),
    "time": ("time",),
    "tracemalloc": ("_tracemalloc",),
    "types": ("_types",),
    "unicodedata": ("unicodedata",),
    "warnings": ("_warnings",),
    "weakref": ("_weakref",),
    "xml.etree": ("_elementtree",),
    "xml.parsers": ("pyexpat",),
    "zlib": ("zlib",),
}
# Inside packages: tests, command lines with effects, and generated tables.
SKIPPED_PARTS = frozenset(
    {"test", "tests", "__main__", "idlelib", "turtledemo", "demo", "pgen2", "_vendor", "_bundled"}
)
