"""Numbers that others published on ClimateBench's test: NorESM2-LM under ssp245, 2080-2100, mean of three members.

They were read, not computed here. NRMSE is spatial, global and total (= spatial + 5 global); ``rmse_by_step`` is the mean of the
yearly RMSE, where printed. K, and mm day-1 for pr and pr90.
"""

from typing import Any

SOURCE_ID, SCENARIO, WINDOW = "NorESM2-LM", "ssp245", (2080, 2100)
README = "README of github.com/duncanwp/ClimateBench; Watson-Parris et al. 2022, doi 10.1029/2021MS002954"
CLIMAX = "Nguyen et al. 2023, arXiv 2301.10343, table 2"
EMCLI = "github.com/blutjens/climate-emulator; Lütjens et al. 2024, arXiv 2408.05288"
TUTORIAL = (
    "github.com/blutjens/climate-emulator-tutorial, calculate_climatebench_metrics.ipynb, trained without historical"
)
TAS, DTR, PR, PR90 = "tas", "diurnal_temperature_range", "pr", "pr90"
Numbers = tuple[float, float, float] | tuple[float, float, float, float]

_TABLE: tuple[tuple[str, str, dict[str, Numbers]], ...] = (
    ("CNN-LSTM", README, {
        TAS: (0.107294, 0.0440271, 0.327429), DTR: (9.91735, 1.37219, 16.7783), PR: (2.1281, 0.2093, 3.1746),
        PR90: (2.61022, 0.345709, 4.33876)}),
    ("Gaussian process", README, {
        TAS: (0.109106, 0.0738238, 0.478225), DTR: (9.20713, 2.67495, 22.5819), PR: (2.34092, 0.341453, 4.04818),
        PR90: (2.5559, 0.429154, 4.70167)}),
    ("random forest", README, {
        TAS: (0.107574, 0.0584057, 0.399602), DTR: (9.19503, 2.65241, 22.4571), PR: (2.52431, 0.502126, 5.03494),
        PR90: (2.68209, 0.543375, 5.39896)}),
    ("CNN-LSTM, reproduced", CLIMAX, {
        TAS: (0.123, 0.080, 0.524, 0.404), DTR: (7.465, 1.233, 13.632, 0.150), PR: (2.349, 0.151, 3.104, 0.553),
        PR90: (3.108, 0.282, 4.517, 1.594)}),
    ("Cli-ViT", CLIMAX, {
        TAS: (0.086, 0.044, 0.305, 0.362), DTR: (6.997, 1.759, 15.792, 0.146), PR: (2.224, 0.241, 3.430, 0.550),
        PR90: (2.800, 0.329, 4.447, 1.579)}),
    ("ClimaX", CLIMAX, {
        TAS: (0.086, 0.043, 0.300, 0.362), DTR: (7.148, 0.961, 11.952, 0.147), PR: (2.360, 0.206, 3.390, 0.554),
        PR90: (2.739, 0.332, 4.397, 1.575)}),
    ("ClimaX, frozen", CLIMAX, {
        TAS: (0.085, 0.043, 0.297, 0.360), DTR: (6.688, 0.810, 10.739, 0.144), PR: (2.193, 0.183, 3.110, 0.549),
        PR90: (2.681, 0.342, 4.389, 1.572)}),
    ("linear pattern scaling", EMCLI, {TAS: (0.0786087528, 0.0409974797, 0.2835961515)}),
    ("linear pattern scaling", TUTORIAL, {DTR: (7.958895, 2.021581, 18.066802)}),
)  # fmt: skip


def published_rows() -> list[dict[str, Any]]:
    """One row a model and variable, marked ``source`` = "published", with ``ref``."""
    about = {"source": "published", "esm": SOURCE_ID, "scenario": SCENARIO, "window": list(WINDOW), "N": 3}
    return [
        {"model": model, "variable": name, **about, "ref": ref,
         **dict(zip(("nrmse_s", "nrmse_g", "nrmse_t", "rmse_by_step"), numbers, strict=False))}
        for model, ref, by_variable in _TABLE
        for name, numbers in by_variable.items()
    ]  # fmt: skip
