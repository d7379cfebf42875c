/* Loads libtss2 when the TPM is first used, so that a gateway without a TPM needs none of it, on disk or in memory.
 *
 * Here is each function of libtss2 that the agent uses. The first call of any of them opens the three libraries and looks up all
 * functions: either every one is there, or none is called. A function that is missing here does not link.
 *
 * The types are those of the TSS 2.0 specifications (ESAPI, TCTI, Marshaling) as a caller's machine code sees them: ESYS_TR and
 * other handles are 32 bits wide, structures are passed by address.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint32_t TSS2_RC;
typedef uint32_t TR;

/* "The library cannot be loaded", in a layer that the specification leaves to implementations; src/tpm/fault.rs knows it, too. */
#define NOT_LOADED ((TSS2_RC)0x00f00001)

enum { MU, ESYS, TCTILDR, LIBRARIES };

static const char *const soname[LIBRARIES] = { "libtss2-mu.so.0", "libtss2-esys.so.0", "libtss2-tctildr.so.0" };

/* F(library, name, parameters, arguments): what returns a response code. */
#define FUNCTIONS(F)                                                                                                               \
    F(MU, Tss2_MU_TPMT_PUBLIC_Marshal, (const void *from, uint8_t *to, size_t size, size_t *at), (from, to, size, at))             \
    F(MU, Tss2_MU_TPMT_PUBLIC_Unmarshal, (const uint8_t *from, size_t size, size_t *at, void *to), (from, size, at, to))           \
    F(ESYS, Esys_Initialize, (void **c, void *tcti, void *abi), (c, tcti, abi))                                                    \
    F(ESYS, Esys_TR_FromTPMPublic, (void *c, uint32_t handle, TR s1, TR s2, TR s3, TR *object), (c, handle, s1, s2, s3, object))   \
    F(ESYS, Esys_TR_GetName, (void *c, TR object, void **name), (c, object, name))                                                 \
    F(ESYS, Esys_TR_SetAuth, (void *c, TR object, const void *auth), (c, object, auth))                                            \
    F(ESYS, Esys_TR_Close, (void *c, TR *object), (c, object))                                                                     \
    F(ESYS, Esys_TRSess_SetAttributes, (void *c, TR session, uint8_t flags, uint8_t mask), (c, session, flags, mask))              \
    F(ESYS, Esys_StartAuthSession,                                                                                                 \
      (void *c, TR key, TR bind, TR s1, TR s2, TR s3, const void *nonce, uint8_t type, const void *symmetric, uint16_t hash,       \
       TR *session),                                                                                                               \
      (c, key, bind, s1, s2, s3, nonce, type, symmetric, hash, session))                                                           \
    F(ESYS, Esys_PolicySecret,                                                                                                     \
      (void *c, TR authority, TR policy, TR s1, TR s2, TR s3, const void *nonce, const void *command, const void *reference,       \
       int32_t expiration, void **timeout, void **ticket),                                                                         \
      (c, authority, policy, s1, s2, s3, nonce, command, reference, expiration, timeout, ticket))                                  \
    F(ESYS, Esys_GetCapability,                                                                                                    \
      (void *c, TR s1, TR s2, TR s3, uint32_t capability, uint32_t property, uint32_t count, uint8_t *more, void **data),          \
      (c, s1, s2, s3, capability, property, count, more, data))                                                                    \
    F(ESYS, Esys_CreatePrimary,                                                                                                    \
      (void *c, TR hierarchy, TR s1, TR s2, TR s3, const void *sensitive, const void *template, const void *outside,               \
       const void *pcrs, TR *object, void **public, void **data, void **hash, void **ticket),                                      \
      (c, hierarchy, s1, s2, s3, sensitive, template, outside, pcrs, object, public, data, hash, ticket))                          \
    F(ESYS, Esys_ReadPublic, (void *c, TR object, TR s1, TR s2, TR s3, void **public, void **name, void **qualified),              \
      (c, object, s1, s2, s3, public, name, qualified))                                                                            \
    F(ESYS, Esys_EvictControl, (void *c, TR auth, TR object, TR s1, TR s2, TR s3, uint32_t handle, TR *kept),                      \
      (c, auth, object, s1, s2, s3, handle, kept))                                                                                 \
    F(ESYS, Esys_ActivateCredential,                                                                                               \
      (void *c, TR about, TR key, TR s1, TR s2, TR s3, const void *credential, const void *secret, void **digest),                 \
      (c, about, key, s1, s2, s3, credential, secret, digest))                                                                     \
    F(ESYS, Esys_Import,                                                                                                           \
      (void *c, TR parent, TR s1, TR s2, TR s3, const void *inner, const void *public, const void *duplicate, const void *seed,    \
       const void *symmetric, void **private),                                                                                     \
      (c, parent, s1, s2, s3, inner, public, duplicate, seed, symmetric, private))                                                 \
    F(ESYS, Esys_Load, (void *c, TR parent, TR s1, TR s2, TR s3, const void *private, const void *public, TR *object),             \
      (c, parent, s1, s2, s3, private, public, object))                                                                            \
    F(ESYS, Esys_HMAC, (void *c, TR key, TR s1, TR s2, TR s3, const void *text, uint16_t hash, void **digest),                     \
      (c, key, s1, s2, s3, text, hash, digest))                                                                                    \
    F(ESYS, Esys_ContextSave, (void *c, TR object, void **context), (c, object, context))                                          \
    F(ESYS, Esys_ContextLoad, (void *c, const void *context, TR *object), (c, context, object))                                    \
    F(ESYS, Esys_FlushContext, (void *c, TR object), (c, object))                                                                  \
    F(ESYS, Esys_NV_ReadPublic, (void *c, TR index, TR s1, TR s2, TR s3, void **public, void **name),                              \
      (c, index, s1, s2, s3, public, name))                                                                                        \
    F(ESYS, Esys_NV_Read, (void *c, TR auth, TR index, TR s1, TR s2, TR s3, uint16_t size, uint16_t offset, void **data),          \
      (c, auth, index, s1, s2, s3, size, offset, data))

/* What is called by hand below, or returns nothing. */
#define OTHERS(F)                                                                                                                  \
    F(ESYS, Esys_Finalize, , )                                                                                                     \
    F(TCTILDR, Tss2_TctiLdr_Initialize, , )                                                                                        \
    F(TCTILDR, Tss2_TctiLdr_Finalize, , )

#define NUMBER(library, name, parameters, arguments) AT_##name,
#define ENTRY(library, name, parameters, arguments) { library, #name },

enum { FUNCTIONS(NUMBER) OTHERS(NUMBER) COUNT };

static const struct { int library; const char *name; } wanted[COUNT] = { FUNCTIONS(ENTRY) OTHERS(ENTRY) };

static void *found[COUNT];
static int is_loaded;
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
/* Why this thread's last call could not load it, in the words of the system's loader. */
static _Thread_local char reason[512];

static int fail(void)
{
    const char *words = dlerror();
    snprintf(reason, sizeof reason, "%s", words ? words : "the system's loader does not say why");
    return 0;
}

static int open_all(void)
{
    static void *opened[LIBRARIES];
    for (int i = 0; i < LIBRARIES; i++)
        if (!opened[i] && !(opened[i] = dlopen(soname[i], RTLD_NOW | RTLD_LOCAL)))
            return fail();
    for (int i = 0; i < COUNT; i++)
        if (!(found[i] = dlsym(opened[wanted[i].library], wanted[i].name)))
            return fail();
    return 1;
}

/* What did not work is tried again at the next call: the package may have been installed meanwhile. */
static TSS2_RC load(void)
{
    if (__atomic_load_n(&is_loaded, __ATOMIC_ACQUIRE))
        return 0;
    pthread_mutex_lock(&loading);
    int is_open = is_loaded || open_all();
    __atomic_store_n(&is_loaded, is_open, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&loading);
    return is_open ? 0 : NOT_LOADED;
}

#define CALL(type, name) ((type)found[AT_##name])

#define TRAMPOLINE(library, name, parameters, arguments)                                                                           \
    TSS2_RC name parameters;                                                                                                       \
    TSS2_RC name parameters                                                                                                        \
    {                                                                                                                              \
        TSS2_RC code = load();                                                                                                     \
        return code ? code : CALL(TSS2_RC(*) parameters, name) arguments;                                                          \
    }

FUNCTIONS(TRAMPOLINE)

void Esys_Finalize(void **context);
void Esys_Finalize(void **context)
{
    if (load() == 0)
        CALL(void (*)(void **), Esys_Finalize)(context);
}

void Tss2_TctiLdr_Finalize(void **context);
void Tss2_TctiLdr_Finalize(void **context)
{
    if (load() == 0)
        CALL(void (*)(void **), Tss2_TctiLdr_Finalize)(context);
}

/* The wrapper has a type for each kind of TCTI and reads their names with regular expressions, but for a device's. So the whole
 * name comes as that of a device (src/tpm/esys.rs), and libtss2 gets it as it was configured. */
TSS2_RC Tss2_TctiLdr_Initialize(const char *name, void **context);
TSS2_RC Tss2_TctiLdr_Initialize(const char *name, void **context)
{
    static const char prefix[] = "device:";
    TSS2_RC code = load();
    if (code)
        return code;
    if (strncmp(name, prefix, sizeof prefix - 1) == 0)
        name += sizeof prefix - 1;
    return CALL(TSS2_RC(*)(const char *, void **), Tss2_TctiLdr_Initialize)(name, context);
}

/* TSS2_TCTI_INFO. */
struct info {
    uint32_t version;
    const char *name;
    const char *description;
    const char *help;
    void *initialize;
};

/* Not libtss2's: describes the way to it. The description says why this thread could not load it, and is empty if it could. */
TSS2_RC Tss2_TctiLdr_GetInfo(const char *name, struct info **info);
TSS2_RC Tss2_TctiLdr_GetInfo(const char *name, struct info **info)
{
    static _Thread_local struct info about;
    (void)name;
    about = (struct info){ 2, "libtss2", reason, "", NULL };
    *info = &about;
    return 0;
}

void Tss2_TctiLdr_FreeInfo(struct info **info);
void Tss2_TctiLdr_FreeInfo(struct info **info)
{
    *info = NULL;
}

/* libtss2 tells on stderr of each answer of a TPM that is no success, also of those that are expected. The agent says itself what
 * it has to say. Set before main, while there is one thread; whoever has set it wants to hear it. */
__attribute__((constructor)) static void keep_libtss2_quiet(void)
{
    setenv("TSS2_LOG", "all+NONE", 0);
}
