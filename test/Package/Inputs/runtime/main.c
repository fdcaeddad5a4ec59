/* Prints the version of the runtime and makes a context. */

#include <moe_rt/moe_rt.h>
#include <stdio.h>

int main(void) {
  moe_rt_context_t *context = NULL;
  moe_rt_status_t status = moe_rt_context_create(NULL, &context);
  if (status) {
    fprintf(stderr, "%s\n", moe_rt_status_message(status));
    moe_rt_status_free(status);
    return 1;
  }
  moe_rt_context_destroy(context);
  printf("moe_rt %s\n", moe_rt_version());
  return 0;
}
