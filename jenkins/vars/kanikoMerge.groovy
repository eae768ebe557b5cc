import com.cloudbees.groovy.cps.NonCPS
import groovy.json.JsonSlurperClassic

// Verifies what the builds stashed, publishes it as one image, moves the tags.
Map call(Map config) {
    String records = pwd(tmp: true) + '/kaniko-multiarch/merge-' + (config.key ?: 'image')
    dir(records) {
        deleteDir()
        for (String name in config.stashes) {
            dir(name) { unstash(name) }
        }
    }
    Map report = read(kanikoCommand('merge', config + [digestsFrom: records]))
    dir(records) { deleteDir() }
    return report
}

@NonCPS
private Map read(String json) {
    Map all = new JsonSlurperClassic().parseText(json)
    return [digest: all.digest, image: all.image, tags: all.tags, platforms: all.platforms, published: all.published]
}
