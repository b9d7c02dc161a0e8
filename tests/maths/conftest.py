from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from lucidcell.cells.batch import SparseRows


@pytest.fixture(scope="session")
def sparse_rows() -> Callable[[np.ndarray], SparseRows]:
    """Make `SparseRows` of a dense matrix."""

    def make(dense: np.ndarray) -> SparseRows:
        csr = sp.csr_matrix(dense)
        indptr, indices = torch.from_numpy(csr.indptr.astype(np.int64)), torch.from_numpy(csr.indices.astype(np.int32))
        return SparseRows(indptr, indices, torch.from_numpy(csr.data.astype(np.float32)), dense.shape[1])

    return make
