// Builds here, pushes by digest, and stashes the records for kanikoMerge.
Map call(Map config) {
    String name = config.stash ?: ('kma-' + (config.key ?: 'image') + '-' + (config.platform ?: config.platforms ?: 'here')).replaceAll('[^A-Za-z0-9._-]+', '-')
    // Not in the workspace, which is the build context.
    String records = pwd(tmp: true) + '/kaniko-multiarch/' + name
    dir(records) { deleteDir() }
    String names = kanikoCommand('build', config + [digestsTo: records, pushByDigest: config.image ? null : true])
    dir(records) {
        stash(name: name, includes: '**')
        deleteDir()
    }
    String first = names.tokenize('\n')[0] ?: ''
    return [digest: first.contains('@') ? first.substring(first.indexOf('@') + 1) : '', image: first, stash: name]
}
