"""Options of methods: declared once, checked in Python and on the command line alike."""

import pytest
from small import method_of

from tf_mwnet import UserError, methods
from tf_mwnet.methods import METHODS
from tf_mwnet.methods.options import Option, converted, default_of, filled

DECLARED = [(name, option) for name, kind in METHODS.items() for option in kind.options]


@pytest.mark.parametrize(("name", "option"), DECLARED, ids=[f"{n}-{o.name}" for n, o in DECLARED])
def test_declared_options(name, option):
    """Each has a default that is allowed, is an attribute, in the configuration, and in text."""
    default = default_of(METHODS[name], option.name)
    assert converted(option, default, default) == default
    assert option.help
    made = method_of(name)
    assert getattr(made, option.name) == default or option.name in METHODS[name].from_run
    saved = made.get_config()[option.name]
    assert saved == (list(default) if isinstance(default, tuple) else getattr(made, option.name))
    again = method_of(name, **{option.name: default})
    assert methods.parse(methods.spelled(name, {option.name: getattr(again, option.name)})) == (name, {})


def test_text_and_values():
    text = "gdw --eta=1000 --nozero_mean"
    name, values = methods.parse(text)
    assert (name, values) == ("gdw", {"eta": 1000.0, "zero_mean": False})
    assert methods.parse(methods.spelled(name, values)) == (name, values)
    assert methods.spelled("gdw", {"eta": 100.0, "clip": 0.25}) == "gdw --clip=0.25"
    assert methods.with_own_options("gdw", ["--eta=3", "--lr=1", "--nozero_mean"]) == (
        "gdw --eta=3 --nozero_mean",
        ["--lr=1"],
    )
    assert methods.get(text).eta == 1000
    assert filled(METHODS["gdw"], {"eta": 3.0}) == {"eta": 3.0, "clip": 0.2, "zero_mean": True}
    assert filled(METHODS["co_teaching"], {}) == {"warm_up": 10}  # a run knows the forget rate


@pytest.mark.parametrize(
    ("option", "default", "value", "message"),
    [
        (Option("a", "h", above=0, at_most=1), 0.5, 0, "a is 0; allowed: above 0, at most 1"),
        (Option("a", "h", at_least=0, below=1), 0.5, 1.0, "a is 1; allowed: 0 to below 1"),
        (Option("a", "h", at_least=0, at_most=1), 0.5, -1, "a is -1; allowed: 0 to 1"),
        (Option("a", "h"), 0.5, float("inf"), "a is inf; allowed: a finite number"),
        (Option("a", "h"), 0.5, float("nan"), "a is nan; allowed: a finite number"),
        (Option("a", "h"), 0.5, "x", "a is 'x'; allowed: a number"),
        (Option("a", "h", at_least=1), 3, 2.5, "a is 2.5; allowed: an integer, at least 1"),
        (Option("a", "h", at_least=1), 3, float("inf"), "a is inf; allowed: an integer, at least 1"),
        (Option("a", "h"), True, 2, "a is 2; allowed: true or false"),
        (Option("a", "h"), True, "yes", "a is 'yes'; allowed: true or false"),
        (Option("a", "h"), "x", 1, "a is 1; allowed: a text"),
        (Option("a", "h", choices=("x", "y")), "x", "z", "unknown a 'z'; allowed: x, y"),
        (Option("a", "h", below=1), (0.5, 0.5), (0.1,), "a is (0.1,); allowed: 2 numbers, below 1"),
        (Option("a", "h", below=1), (0.5, 0.5), (0.1, 2), "a value in a is 2; allowed: below 1"),
        (Option("a", "h", below=1), (0.5, 0.5), 0.1, "a is 0.1; allowed: 2 numbers, below 1"),
    ],
)
def test_bad_values(option, default, value, message):
    with pytest.raises(UserError) as caught:
        converted(option, value, default)
    assert str(caught.value) == message


def test_an_option_without_an_argument_is_refused():
    class Careless(methods.ERM):
        options = (Option("strength", "of nothing"),)

    with pytest.raises(TypeError, match="Careless declares the option 'strength' and takes no such"):
        default_of(Careless, "strength")


def test_unknown_option():
    with pytest.raises(UserError, match="method GDW has no option 'lr'; allowed: --eta, --clip"):
        methods.options.checked(METHODS["gdw"], {"lr": 1})
