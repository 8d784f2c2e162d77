"""The warm start finds which words an image shows, and points the projector at their embeddings."""

import torch

from mmtune.models.projector import Projector
from mmtune.models.warm_start import fit_to_words, informative_words


def test_words_of_one_caption_and_of_most_captions_tell_nothing():
    words = [[1, 5], [1, 5], [1, 6], [1, 6], [1, 7]]
    assert list(informative_words(words)) == [5, 6]


def test_projected_images_point_to_the_embeddings_of_their_words():
    torch.manual_seed(0)
    embeddings = torch.randn(20, 128)  # as good as orthogonal
    kinds = torch.arange(60) % 4
    features = torch.randn(4, 12)[kinds][:, None] + 0.1 * torch.randn(60, 3, 12)
    words = [[10 + int(kind), 2] for kind in kinds]
    projector = Projector("mlp2x_gelu", 12, 128)
    told = []
    assert fit_to_words(projector, features, words, embeddings, 60, lambda *steps: told.append(steps)) == 4
    num_steps = 60 * 60 // 32
    assert told == [(step, num_steps) for step in range(num_steps)]
    outputs = projector(features).mean(1).detach()
    centred = embeddings[10:14] - embeddings[10:14].mean(0)
    found = torch.nn.functional.cosine_similarity(outputs[:, None], centred[None], dim=-1).argmax(1)
    assert (found == kinds).float().mean() > 0.95
