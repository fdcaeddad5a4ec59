//===- mpi.h - Groups of ranks on MPI ---------------------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Communicators of moe_rt/group.h over MPI, in a library of their own,
// libmoe_mpi, which is built for an MPI: the runtime links none. A build for
// the standard ABI (mpicc_abi) runs with MPICH and Intel MPI, one for Open MPI
// with its versions 4.1 and 5. The header needs no mpi.h, so that a host can
// load the library at run time.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_MPI_H
#define MOE_RT_MPI_H

#include "moe_rt/group.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Creates the communicator of this rank from the MPI_Comm at `comm`, which is
/// duplicated: all of its ranks call this. NULL is MPI_COMM_WORLD; MPI is then
/// initialised if it is not. Returns 0, or an error code of MPI. Calls of a
/// group may come from any thread, one at a time: MPI has to be initialised
/// with MPI_THREAD_SERIALIZED, or all are made from its main thread.
///
/// Where MPI can go on without a rank (Open MPI with `--with-ft ulfm`), a group
/// that gives up revokes the communicator, so that the others know at once.
/// Elsewhere they wait until their deadline, or the launcher ends the job.
MOE_RT_API int32_t moe_mpi_communicator_create(const void *comm,
                                               moe_rt_communicator_t *out);
/// Destroys a communicator, after its group. All ranks call this, unless the
/// group is dead: then its MPI communicator and buffers stay.
MOE_RT_API void
moe_mpi_communicator_destroy(moe_rt_communicator_t *communicator);
/// Finalises MPI, if moe_mpi_communicator_create has initialised it. A process
/// whose group is dead ends without: MPI_Finalize would wait for all ranks.
MOE_RT_API void moe_mpi_finalize(void);

#ifdef __cplusplus
} // extern "C"
#endif

#endif // MOE_RT_MPI_H
