/* Limits on what files may declare: far above real models, small enough that a check costs nothing. A declared
 * number is compared with its limit and with the bytes really present before anything is allocated for it. */
#ifndef CR_IO_LIMITS_H
#define CR_IO_LIMITS_H

#define CR_GGUF_MAX_TENSORS 65536u
#define CR_GGUF_MAX_KV 65536u
#define CR_GGUF_MAX_KEY_BYTES 65535u
#define CR_GGUF_MAX_NAME_BYTES 63u /* ggml keeps names in 64 bytes with the terminator */
#define CR_GGUF_MAX_STRING_BYTES ((uint64_t)64 << 20)
#define CR_GGUF_MAX_DIMENSION 0x7fffffffu
#define CR_GGUF_MIN_ALIGNMENT 8u
#define CR_GGUF_MAX_ALIGNMENT (1u << 20)
#define CR_GGUF_DEFAULT_ALIGNMENT 32u

#define CR_JSON_MAX_DEPTH 64

#define CR_SAFETENSORS_MAX_HEADER ((uint64_t)16 << 20)
#define CR_SAFETENSORS_MAX_DIMS 8
#define CR_SAFETENSORS_MAX_NAME_BYTES 4096u
#define CR_SAFETENSORS_MAX_ENTRY_BYTES 4096u /* text of one tensor's description */

#endif
