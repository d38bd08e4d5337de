"""Perturbations of one classifier, and how alike they are."""

import numpy as np

from keras_uap.visualization import style


def plot_diversity(result):
    """Draws a `Diversity`: its perturbations and their inner products.

    Args:
        result: `keras_uap.analysis.Diversity`.
    """
    count = len(result.inner_products)
    figure = style.figure(max(7.5, 1.8 * count), 6.6)
    grid = figure.add_gridspec(2, count, height_ratios=[1, 2.2])
    for i, v in enumerate(result.perturbations):
        axes = figure.add_subplot(grid[0, i])
        title = f"seed {result.seeds[i]}"
        if result.fooling_rates is not None:
            title += f"\nfools {result.fooling_rates[i]:.0%}"
        axes.set_title(title, fontsize=9)
        style.show_perturbation(axes, v)
    axes = figure.add_subplot(grid[1, :])
    products = result.inner_products
    texts = [[f"{value:.2f}" for value in row] for row in products]
    legend = "normalised inner product, absolute"
    style.heat_map(axes, np.abs(products), texts, legend)
    axes.set_xticks(range(count), result.seeds)
    axes.set_yticks(range(count), result.seeds)
    style.label(axes, x="seed", y="seed")
    text = f"{count} perturbations of one classifier, normalised inner products"
    if result.num_images:
        text += f"; fooling rates on n = {result.num_images} held-out images"
    style.suptitle(figure, text)
    return figure
