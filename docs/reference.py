"""Writes the API reference: Markdown pages, made from the docstrings.

A page is a module of the package. What is public is what the package itself
says: `__all__` where a module has one, all names without a leading underscore
where not. Griffe takes the docstrings apart, and the Python domain of Sphinx
lays them out.
"""

import importlib
import inspect
import logging
import re
import types

import griffe

MODULES = (
    "keras_uap",
    "keras_uap.analysis",
    "keras_uap.datasets",
    "keras_uap.interchange",
    "keras_uap.losses",
    "keras_uap.samples",
    "keras_uap.visualization",
)

# Classes that only functions return, by where they can be imported from.
RETURNED = {
    "keras_uap.evaluation.audit": ("Audit", "Run"),
    "keras_uap.evaluation.changes": ("Survived",),
    "keras_uap.defenses.harden": ("Hardening",),
}

# What the classes of the package call on each other.
_HOOKS = {
    "changes",
    "check_labels",
    "delete",
    "free_values",
    "half",
    "keep",
    "minimal_perturbations",
    "others",
    "pixel_step",
    "refuse_outside",
    "rows",
    "steepest",
}

# The contents: names by task, `module.*` for all others of a module.
TASKS = {
    "Audit and measure": (
        "audit",
        "evaluation.audit.Audit",
        "evaluation.audit.Run",
        "evaluation.changes.Survived",
        "AuditInterrupted",
        "AuditFailed",
        "analysis.fooling_report",
        "analysis.FoolingReport",
        "analysis.Examples",
        "analysis.rate_interval",
        "analysis.difference_interval",
    ),
    "Find a perturbation": (
        "UniversalPerturbation",
        "DeepFool",
        "deepfool",
        "LpBall",
        "project",
        "noise_images",
        "FoolingRate",
        "StopAtFoolingRate",
        "BackupAndRestore",
        "PerturbationTensorBoard",
        "losses.*",
    ),
    "Connect a classifier": ("attach", "Ensemble", "logits_function"),
    "Harden": (
        "harden",
        "defenses.harden.Hardening",
        "AdversarialDistiller",
        "UniversalAdversarialTraining",
    ),
    "Apply and save": (
        "PerturbationLayer",
        "resize_perturbation",
        "interchange.*",
    ),
    "Load images": ("datasets.*", "samples.*"),
    "Measure as the paper does": ("analysis.*",),
    "Plot": ("visualization.*",),
}

_OPTIONS = {
    "returns_named_value": False,
    "returns_multiple_items": False,
    "warn_unknown_params": False,
    "warn_missing_types": False,
}


_ATTRIBUTES = "Attributes"


def public_names(module):
    """Returns the public names of a module, in order, without modules."""
    names = getattr(module, "__all__", None) or dir(module)
    return sorted(
        name
        for name in names
        if not name.startswith("_")
        and not isinstance(getattr(module, name), types.ModuleType)
    )


def public_members(cls):
    """Returns the documented methods and properties of a class, by name.

    Those that only fill in what Keras asks for, such as `get_config`, have no
    docstring of their own.
    """
    members = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] != "keras_uap":
            continue
        for name, value in vars(base).items():
            function = getattr(value, "__func__", value)
            if inspect.isroutine(function) or isinstance(value, property):
                members[name] = value
    return {
        name: value
        for name, value in sorted(members.items())
        if not name.startswith("_") and value.__doc__ and name not in _HOOKS
    }


def sections(value):
    """Returns the sections of a docstring, as Griffe finds them."""
    # Of attributes, Griffe takes the type of one for that of the next.
    text = re.sub(
        r"^Attributes:$",
        f"Args: {_ATTRIBUTES}",
        inspect.getdoc(value) or "",
        flags=re.MULTILINE,
    )
    return griffe.Docstring(text).parse("google", **_OPTIONS)


def item_names(item):
    """Returns the names that an item of a section describes."""
    # Of `norm, epsilon: ...` Griffe takes the second name for a type.
    names = " ".join(filter(None, (item.name, str(item.annotation or ""))))
    return re.split(r",?\s+", names)


def pages():
    """Returns the text of each page, by the name of its file."""
    logging.getLogger("griffe").setLevel(logging.ERROR)
    modules = [importlib.import_module(name) for name in MODULES]
    texts = {_file(module): _page(module) for module in modules}
    texts["results.md"] = _results()
    texts["index.md"] = _index(modules)
    return texts


def returned():
    """Yields a module, a name and a class of what only functions return."""
    for path, names in RETURNED.items():
        module = importlib.import_module(path)
        for name in names:
            yield module, name, getattr(module, name)


def _file(module):
    return f"{module.__name__.rpartition('.')[2]}.md"


def _index(modules):
    lines = ["# Reference", ""]
    left = {
        f"{module.__name__}.{name}": _summary(module, name)
        for module in modules
        for name in public_names(module)
    }
    for module, name, _ in returned():
        left[f"{module.__name__}.{name}"] = _summary(module, name)
    named = {f"keras_uap.{name}" for names in TASKS.values() for name in names}
    for task, names in TASKS.items():
        lines += [f"## {task}", "", "| name | |", "|---|---|"]
        for name in names:
            path = f"keras_uap.{name}"
            paths = [path]
            if path.endswith("*"):
                paths = [p for p in left if p.startswith(path[:-1])]
                # Functions come first, then what they return.
                paths = sorted({*paths} - named, key=_is_class)
            for path in paths:
                lines.append(f"| {{py:obj}}`{path}` | {left[path]} |")
        lines.append("")
    files = ["results.md", *map(_file, modules)]
    return "\n".join([*lines, "```{toctree}", ":hidden:", "", *files, "```"])


def _is_class(path):
    """Sorts classes behind functions, each in alphabetical order."""
    return path.rpartition(".")[2][0].isupper(), path


def _summary(module, name):
    value = getattr(module, name)
    if not callable(value):
        return f"`{value!r}`" if isinstance(value, str | int) else ""
    text = (inspect.getdoc(value) or "").partition("\n\n")[0]
    return " ".join(text.split()).replace("|", r"\|")


def _results():
    lines = [
        "# Results of audit and harden",
        "",
        "`audit` and `harden` return these. For `isinstance`, import them from",
        "the modules named here. Measurements are in `keras_uap.analysis`.",
        "",
    ]
    for module, name, cls in returned():
        place = f"```{{py:currentmodule}} {module.__name__}"
        lines += [f"## {name}", "", place, "```", "", *_class(name, cls), ""]
    return "\n".join(lines)


def _page(module):
    name = module.__name__
    lines = [f"# {name}", "", f"```{{py:module}} {name}", "```", ""]
    lines += _body(module)
    for public in public_names(module):
        value = getattr(module, public)
        lines += [f"## {public}", ""]
        if inspect.isclass(value):
            lines += _class(public, value)
        elif callable(value):
            lines += _object("function", public, value)
        else:
            lines += [f"```{{py:data}} {public}", f":value: {value!r}", "```"]
        lines.append("")
    return "\n".join(lines)


def _class(name, cls):
    inner = []
    for member, value in public_members(cls).items():
        function = getattr(value, "__func__", value)
        kind = "property" if isinstance(value, property) else "method"
        options = []
        if isinstance(value, classmethod):
            options = [":classmethod:"]
        elif isinstance(value, staticmethod):
            options = [":staticmethod:"]
        inner += _object(kind, member, function, options)
    return _object("class", name, cls, (), inner, fence="`" * 6)


def _object(kind, name, value, options=(), inner=(), fence="`" * 5):
    bare = kind == "property"
    call = "" if bare else _signature(value, method=kind == "method")
    if inner or kind in ("class", "function"):
        # Its heading is in the contents of the page.
        options = [*options, ":no-contents-entry:"]
    return [
        f"{fence}{{py:{kind}}} {name}{call}",
        *options,
        "",
        *_body(value),
        *inner,
        fence,
        "",
    ]


def _signature(value, method):
    try:
        signature = inspect.signature(value)
    except ValueError:  # A class of the standard library.
        return ""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    if method and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    return str(inspect.Signature(parameters))


def _body(value):
    """The docstring as Markdown, its sections as fields."""
    lines = []
    fields = []
    for section in sections(value):
        kind = section.kind.value
        if kind == "text":
            lines += [section.value, ""]
        elif section.title == _ATTRIBUTES:
            items = []
            for item in section.value:
                # In this role they are not taken for names of the package.
                names = [f"{{code}}`{name}`" for name in item_names(item)]
                text = _indented(item.description, 2)
                items.append(f"- {', '.join(names)}: {text}")
            fields += _field("Attributes", "\n" + "\n".join(items))
        elif kind == "parameters":
            for item in section.value:
                for name in item_names(item):
                    name = name.replace("*", r"\*")
                    fields += _field(f"param {name}", item.description)
        elif kind == "returns":
            (item,) = section.value
            # Griffe takes what stands before a colon for a type.
            parts = filter(None, (item.annotation, item.description))
            fields += _field("returns", ": ".join(map(str, parts)))
        elif kind == "raises":
            for item in section.value:
                fields += _field(f"raises {item.annotation}", item.description)
        else:
            # A list begins on a line of its own, or it is no list.
            text = section.value.description
            fields += _field(section.title, "\n" * text.startswith("- ") + text)
    return [*lines, *fields, ""]


def _field(name, text):
    return [f":{name}: {_indented(text, 4)}"]


def _indented(text, by):
    return text.rstrip().replace("\n", "\n" + " " * by)
