"""Tables of yearly emissions as people have them: read right, or refused with line, column and what to do."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from climatesuite.errors import DataContractError
from climatesuite.forcing.table import accepted_units, read_table

GOOD = "year,CO2 (GtCO2/yr),SO2 (Mt/yr)\n2020,39.5,96.25\n2021,38.0,1080.5e-1\n2022,-1.5,0\n"
WANTED = pd.DataFrame(
    {"CO2": [39.5, 38.0, -1.5], "SO2": [96.25, 108.05, 0.0]}, pd.Index([2020, 2021, 2022], name="year")
)


@pytest.fixture
def read(tmp_path):
    """Reads a text (or bytes) as a file."""

    def from_text(text, **options):
        path = tmp_path / "mine.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_table(path, **options)

    return from_text


SPREADSHEETS = {
    "plain": GOOD.encode(),
    "byte-order mark": GOOD.encode("utf-8-sig"),
    "utf-16": GOOD.encode("utf-16"),
    "windows line ends": GOOD.replace("\n", "\r\n").encode(),
    "semicolons and decimal commas": GOOD.replace(",", ";").replace(".", ",").encode(),
    "tabs": GOOD.replace(",", "\t").encode(),
    "trailing commas": GOOD.replace("\n", ",\n").encode(),
    "comments and empty lines": ("# my table, for the 1.5 °C paper\n\n" + GOOD + "\n,,\n").encode(),
    "windows encoding": ("# façon\n" + GOOD).encode("cp1252"),
    "thousands separators": b"year,CO2 (MtCO2/yr),SO2 (kt/yr)\n"
    b'2020,"39,500.0","96,250"\n2021,"38,000","108,050.0"\n2022,"-1,500",0\n',
    "thousands and decimal commas": b"year;CO2 (MtCO2/yr);SO2 (kt/yr)\n2020;39.500,0;96.250\n2021;38.000;108.050\n2022;-1.500;0\n",
    "blanks between thousands": "year;CO2 (MtCO2/yr);SO2 (kt/yr)\n"
    "2020;39\u202f500;96 250\n2021;38'000;108 050\n2022;\u22121 500;0".encode(),
    "a head over two lines": GOOD.replace("CO2 (", '"CO2\n(').replace("GtCO2/yr)", 'GtCO2/yr)"').encode(),
}


@pytest.mark.parametrize("kind", SPREADSHEETS)
def test_what_spreadsheets_write_is_read_right(read, kind):
    pd.testing.assert_frame_equal(read(SPREADSHEETS[kind]).yearly, WANTED, rtol=1e-12)


def test_what_was_understood_is_said(read):
    assert read(SPREADSHEETS["plain"]).notes == ()
    assert read(SPREADSHEETS["semicolons and decimal commas"]).notes == (
        "columns separated by semicolons", "decimal commas",
    )  # fmt: skip
    notes = read(SPREADSHEETS["thousands separators"]).notes
    assert notes == ("CO2 (MtCO2/yr) times 0.001 to GtCO2 year-1", "SO2 (kt/yr) times 0.001 to Mt year-1")


@pytest.mark.parametrize(
    ("head", "value", "name", "expected"),
    [
        ("CO2_GtCO2_yr", 36.7, "CO2", 36.7), ("CO2 [GtC/yr]", 10.0, "CO2", 36.641), ("CO2 (Pg C yr-1)", 10.0, "CO2", 36.641),
        ("co2 (Tg CO2 per year)", 36700, "CO2", 36.7), ("CH4_Mt_yr", 380, "CH4", 380), ("CH4 (Gt/a)", 0.38, "CH4", 380),
        ("Sulfur (Tg S/yr)", 50, "SO2", 99.91), ("SO2 (GgS year-1)", 50000, "SO2", 99.91), ("BC (kt/yr)", 8000, "BC", 8),
        ("black carbon (Tg C/yr)", 8, "BC", 8),
    ],
)  # fmt: skip
def test_units_are_read_from_the_head_and_converted(read, head, value, name, expected):
    assert read(f"year,{head}\n2020,{value}\n").yearly[name].item() == pytest.approx(expected, rel=1e-4)


def test_units_may_be_said_apart(read):
    assert read("year,CO2\n2020,10\n", units={"CO2": "GtC/yr"}).yearly.CO2.item() == pytest.approx(36.641, rel=1e-4)
    assert accepted_units("SO2")["mts/yr"] == pytest.approx(64.064 / 32.06)


def test_a_dataframe_is_a_table():
    frame = pd.DataFrame(
        {"CO2 (GtCO2/yr)": [39.5, 38.0, -1.5], "SO2 (Mt/yr)": [96.25, 108.05, 0.0]}, [2020, 2021, 2022]
    )
    pd.testing.assert_frame_equal(read_table(frame).yearly, WANTED)
    pd.testing.assert_frame_equal(read_table(frame.rename_axis("year").reset_index()).yearly, WANTED)
    with pytest.raises(DataContractError, match=r"the DataFrame, row 1, column SO2 \(Mt/yr\): '', no value"):
        read_table(frame.where(frame != 108.05))


def test_anchor_years_are_filled_when_asked_to(read):
    text = "year,CO2 (GtCO2/yr)\n2020,40\n2030,30\n2050,0\n"
    table = read(text, interpolate=True)
    assert table.yearly.index.tolist() == list(range(2020, 2051)) and table.yearly.CO2[2040] == 15.0
    assert table.notes == ("28 years filled linearly between the 3 that are there",)
    with pytest.raises(
        DataContractError, match="line 3, column year: 2030 after 2020; expected 2021; .*interpolate=True"
    ):
        read(text)


REFUSED = {
    "a missing year": (
        GOOD.replace("2021", "2023").replace("2022", "2024"),
        "line 3, column year: 2023 after 2020; expected 2021",
    ),
    "a duplicate year": (
        GOOD.replace("2022", "2021"),
        "line 4, column year: 2021, which stands in line 3 already; expected every year once",
    ),
    "years out of order": (
        GOOD.replace("2021", "2019"),
        "line 3, column year: 2019 after 2020; expected years in order; sort",
    ),
    "no year": (GOOD.replace("2021", "next"), "line 3, column year: 'next'; expected a year such as 2030"),
    "half a year": (GOOD.replace("2021", "2020.5"), "line 3, column year: '2020.5'"),
    "no column year": (GOOD.replace("year,", "when,"), "columns when, .*; expected one column year"),
    "negative SO2": (
        GOOD.replace("96.25", "-96.25"),
        r"line 2, column SO2 \(Mt/yr\): -96.25 Mt year-1; expected zero or more: only CO2",
    ),
    "negative BC": ("year,BC (Mt/yr)\n2020,8\n2021,-0.1\n", r"line 3, column BC \(Mt/yr\): -0.1"),
    "NaN": (
        GOOD.replace("38.0", "NaN"),
        r"line 3, column CO2 \(GtCO2/yr\): 'NaN', no value; expected a number; fill it",
    ),
    "an empty cell": (GOOD.replace("38.0", ""), r"line 3, column CO2 \(GtCO2/yr\): '', no value"),
    "a spreadsheet's error": (GOOD.replace("38.0", "#DIV/0!"), "'#DIV/0!', no value"),
    "infinity": (GOOD.replace("38.0", "inf"), "'inf'; expected a finite number"),
    "a word": (GOOD.replace("38.0", "38 or so"), r"line 3, column CO2 \(GtCO2/yr\): '38 or so'; expected a number"),
    "no unit": (
        GOOD.replace(" (Mt/yr)", ""),
        r"column SO2: no unit; expected e.g. SO2 \(Mt/yr\); write it into the head",
    ),
    "an unknown unit": (
        GOOD.replace("Mt/yr", "molecules cm-2 s-1"),
        "column SO2 .*: unit 'molecules cm-2 s-1' is unknown; expected e.g. ktSO2",
    ),
    "a wrong unit": (
        GOOD.replace("Mt/yr", "Gt/yr"),
        r"line 2, column SO2 \(Gt/yr\): 9.625e\+04 Mt year-1; expected 0 to 500; is the unit right",
    ),
    "sulphur of what": (
        GOOD.replace("SO2 (Mt/yr)", "Sulphur (Mt/yr)"),
        r"column Sulphur \(Mt/yr\): unit 'Mt/yr', of S or of SO2; expected e.g. MtS/yr",
    ),
    "concentrations": (GOOD.replace("CO2 (GtCO2/yr)", "CO2_ppm"), "column CO2_ppm: 'ppm', no emissions of a year"),
    "cumulative emissions": (
        GOOD.replace("CO2 (GtCO2/yr)", "CO2_cum_GtCO2"),
        "no emissions of a year; expected GtCO2 year-1",
    ),
    "another gas": (
        GOOD.replace("SO2 (Mt/yr)", "NOx (Mt/yr)"),
        r"column NOx \(Mt/yr\): no emissions that are known; expected year, CO2, CH4",
    ),
    "a gas twice": (GOOD.replace("SO2 (Mt/yr)", "CO2 (Mt/yr)"), "a second column of CO2"),
    "unquoted thousands": (
        "year,SO2 (kt/yr)\n2020,96,250\n",
        r"line 2: 3 values; expected 2, one under each of year, SO2 \(kt/yr\); quote",
    ),
    "an ambiguous comma": (
        "year;CO2 (MtCO2/yr)\n2020;39,500\n",
        r"line 2, column CO2 .*: '39,500', which is 39.500 or 39500; expected one reading",
    ),
    "both uses of the comma": (
        "year;CO2 (MtCO2/yr);SO2 (kt/yr)\n2020;39,5;1,000.0\n",
        "line 2, column CO2 .*: a decimal comma, and a comma between thousands in line 2, column SO2",
    ),
    "a row cut short": (GOOD.replace("2021,38.0,1080.5e-1", "2021,38.0"), "line 3: 2 values; expected 3"),
    "years alone": ("year\n2020\n", "a column of years alone; expected one of CO2, CH4, SO2, BC"),
    "heads alone": ("year,CO2 (GtCO2/yr)\n", "1 lines; expected a line of heads and one for every year"),
    "nothing": ("", "0 lines; expected a line of heads"),
    "a spreadsheet itself": (b"PK\x03\x04xl", "a spreadsheet's own format; expected text; save it as CSV"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_tables_are_refused_with_line_column_and_what_to_do(read, what):
    text, message = REFUSED[what]
    with pytest.raises(DataContractError, match=message) as found:
        read(text)
    assert str(found.value).startswith("mine.csv")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataContractError, match="no such file; expected a CSV table"):
        read_table(tmp_path / "absent.csv")


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(0, 499, allow_nan=False, width=32), min_size=1, max_size=5),
    st.sampled_from([(",", "."), (";", ","), ("\t", ".")]),
)
def test_numbers_survive_any_way_of_writing_them(tmp_path_factory, values, style):
    separator, sign = style
    rows = [f"{2020 + i}{separator}{v:.6f}".replace(".", sign) for i, v in enumerate(values)]
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_text("\n".join([f"year{separator}SO2 (Mt/yr)", *rows]))
    np.testing.assert_allclose(read_table(path).yearly.SO2, values, atol=1e-6)
