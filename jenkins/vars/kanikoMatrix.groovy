import com.cloudbees.groovy.cps.NonCPS
import groovy.json.JsonSlurperClassic

// Plans: a row for each image and platform, and what to merge afterwards.
Map call(Map config = [:]) {
    return plan(kanikoCommand('matrix', config + [format: 'jenkins', runner: config.runner ?: config.agents]))
}

@NonCPS
private Map plan(String json) {
    Map all = new JsonSlurperClassic().parseText(json)
    return [rows: all.matrix.include, merges: all.merges.include, platforms: all.platforms, key: all.key, empty: all.empty]
}
